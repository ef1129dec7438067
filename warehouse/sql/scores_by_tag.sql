-- Mean J&F of each run and expression tag, beside the oracle and trivial selectors, in percent
WITH tagged AS (
    SELECT dataset, split, video_id, expression_id, unnest(list_distinct(tags)) AS tag
    FROM expressions
)
SELECT
    run_id,
    dataset,
    split,
    track_set,
    tag,
    count(*) AS expressions,
    round(100 * avg(jf), 2) AS jf,
    round(100 * avg(oracle_jf), 2) AS oracle_jf,
    round(100 * avg(all_tracks_jf), 2) AS all_tracks_jf,
    round(100 * avg(largest_track_jf), 2) AS largest_track_jf,
    round(100 * avg(random_track_jf), 2) AS random_track_jf
FROM scores
JOIN tagged USING (dataset, split, video_id, expression_id)
WHERE NOT stale
GROUP BY run_id, dataset, split, track_set, tag
ORDER BY run_id, dataset, split, track_set, tag
