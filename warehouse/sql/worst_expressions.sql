-- The ten expressions of each run and split with the lowest J&F, in percent
SELECT
    run_id,
    dataset,
    split,
    track_set,
    video_id,
    expression_id,
    text,
    tracks_selected,
    round(100 * jf, 1) AS jf,
    round(100 * oracle_jf, 1) AS oracle_jf
FROM scores
JOIN expressions USING (dataset, split, video_id, expression_id)
WHERE NOT stale
QUALIFY row_number() OVER (
    PARTITION BY run_id, dataset, split, track_set
    ORDER BY scores.jf, video_id, expression_id
) <= 10
ORDER BY run_id, dataset, split, track_set, scores.jf, video_id, expression_id
