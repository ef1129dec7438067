-- Track sets of each split: what they were made with, how many there are, what they cost, what uses them
WITH made AS (
    SELECT
        dataset,
        split,
        track_set,
        count(*) FILTER (stage = 'precompute') AS videos,
        count(*) FILTER (stage = 'precompute' AND stale) AS stale,
        sum(wall_seconds) FILTER (stage IN ('precompute', 'box_tracks', 'detect')) AS seconds,
        max(device_bytes) AS device_bytes,
        list_sort(list_distinct(list(run_id) FILTER (run_id <> ''))) AS used_by
    FROM commits
    WHERE track_set <> '' AND status = 'done'
    GROUP BY ALL
),
counted AS (
    SELECT dataset, split, track_set, count(*) AS tracks
    FROM tracks
    GROUP BY ALL
)
SELECT
    dataset,
    split,
    track_set,
    default_tracks.track_set IS NOT NULL AS is_default,
    checkpoint,
    sources,
    precision,
    corruption,
    coalesce(videos, 0) AS videos,
    coalesce(stale, 0) AS stale,
    coalesce(tracks, 0) AS tracks,
    round(seconds, 1) AS seconds,
    used_by
FROM track_sets
LEFT JOIN made USING (dataset, split, track_set)
LEFT JOIN counted USING (dataset, split, track_set)
LEFT JOIN default_tracks USING (dataset, split, track_set)
ORDER BY dataset, split, is_default DESC, track_set
