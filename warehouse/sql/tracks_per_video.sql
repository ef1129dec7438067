-- Mask tracks of each video, most first (0: none found, or not precomputed yet; see status)
SELECT
    dataset,
    split,
    video_id,
    track_set,
    any_value(frame_count) AS frames,
    count(track_id) AS tracks,
    avg(visible_frames / frame_count) AS mean_visible_share
FROM videos
LEFT JOIN (FROM tracks WHERE NOT stale) USING (dataset, split, video_id)
GROUP BY dataset, split, video_id, track_set
ORDER BY tracks DESC, dataset, split, video_id, track_set
