-- Track sets of each split: what they were made with, how many there are, what they cost, what uses them
WITH made AS (
    SELECT
        dataset,
        split,
        track_set,
        count(*) FILTER (stage = 'precompute') AS videos,
        count(*) FILTER (stage = 'precompute' AND stale) AS stale,
        sum(wall_seconds) FILTER (stage IN ('precompute', 'box_tracks', 'detect')) AS seconds,
        list(DISTINCT run_id) FILTER (run_id <> '') AS evaluated
    FROM commits
    WHERE track_set <> '' AND status = 'done'
    GROUP BY ALL
),
trained AS (
    SELECT track_set, list(DISTINCT run_id) AS trained
    FROM (
        SELECT run_id, unnest(json_extract_string(tracks, '$[*].known_as')) AS track_set FROM runs
    )
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
    list_sort(list_distinct(coalesce(evaluated, []) || coalesce(trained, []))) AS used_by
FROM track_sets
LEFT JOIN made USING (dataset, split, track_set)
LEFT JOIN trained USING (track_set)
LEFT JOIN counted USING (dataset, split, track_set)
LEFT JOIN default_tracks USING (dataset, split, track_set)
ORDER BY dataset, split, is_default DESC, track_set
