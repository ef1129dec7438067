-- Mask tracks of each video, most first (0: none found, or not precomputed yet; see status)
WITH tracked AS (  -- a video without tracks has a record that they were looked for
    SELECT dataset, split, video_id, track_set
    FROM commits
    WHERE stage = 'precompute' AND status = 'done' AND NOT stale
    UNION
    SELECT dataset, split, video_id, track_set FROM tracks WHERE NOT stale
)
SELECT
    dataset,
    split,
    video_id,
    track_set,
    any_value(frame_count) AS frames,
    count(track_id) AS tracks,
    avg(visible_frames / frame_count) AS mean_visible_share
FROM videos
LEFT JOIN tracked USING (dataset, split, video_id)
LEFT JOIN (FROM tracks WHERE NOT stale) USING (dataset, split, video_id, track_set)
GROUP BY dataset, split, video_id, track_set
ORDER BY tracks DESC, dataset, split, video_id, track_set
