-- Oracle of each track set in percent, what better tracks or a better selection would bring, by groups
-- of expressions; the group "all" is of all. oracle_bound: no union of tracks has more; certified:
-- the share of expressions for which the best union was found for certain. better_selection is of
-- a run that was evaluated on the tracks, one row for each, and null without any; not_found_before
-- is what the oracle has that `scores` lacks, which is found without a bound.
WITH sliced AS (
    SELECT dataset, split, video_id, expression_id, 'all' AS slice, 0 AS place, '' AS value
    FROM expressions
    UNION ALL BY NAME
    FROM expression_slices
)
SELECT
    dataset,
    split,
    track_set,
    run_id,
    slice,
    value,
    count(*) AS expressions,
    round(100 * avg(oracles.jf), 2) AS oracle_jf,
    round(100 * avg(oracles.j), 2) AS oracle_j,
    round(100 * avg(jf_bound), 2) AS oracle_bound,
    round(100 * avg((jf_bound <= oracles.jf + 1e-9)::INTEGER), 2) AS certified,
    round(avg(len(jf_tracks)), 2) AS tracks_needed,
    round(100 * avg(1 - oracles.jf), 2) AS better_tracks,
    round(100 * avg(oracles.jf - scores.jf), 2) AS better_selection,
    round(100 * avg(oracles.jf - oracle_jf), 2) AS not_found_before
FROM oracles
JOIN sliced USING (dataset, split, video_id, expression_id)
LEFT JOIN (FROM scores WHERE NOT stale) AS scores
    USING (dataset, split, video_id, track_set, expression_id)
WHERE NOT oracles.stale
GROUP BY dataset, split, track_set, run_id, slice, place, value
ORDER BY dataset, split, track_set, run_id, slice <> 'all', slice, place, value
