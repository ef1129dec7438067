-- Mean scores of each run by groups of expressions, in percent: targets, motion words, size, ...
SELECT
    run_id,
    dataset,
    split,
    track_set,
    slice,
    value,
    count(*) AS expressions,
    round(100 * avg(jf), 2) AS jf,
    round(100 * avg(j), 2) AS j,
    round(100 * avg(f), 2) AS f,
    round(100 * avg(oracle_jf), 2) AS oracle_jf,
    round(100 * avg(lost_in_tracks), 2) AS lost_in_tracks,
    round(100 * avg(lost_in_selection), 2) AS lost_in_selection
FROM expression_scores
JOIN expression_slices USING (dataset, split, video_id, expression_id)
WHERE NOT stale
GROUP BY run_id, dataset, split, track_set, slice, place, value
ORDER BY run_id, dataset, split, track_set, slice, place, value
