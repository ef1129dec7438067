-- J&F in percent of each recipe (with what was changed of it), mean and spread over its seeds
-- validation_jf: of the epoch that a run is evaluated with; jf: of `sola evaluate`, if it was run
WITH validated AS (
    SELECT run_id, 100 * value AS validation_jf
    FROM training_metrics
    JOIN runs USING (run_id)
    WHERE metric = 'validation_jf'
        AND epoch = CASE WHEN weights LIKE '%/best' THEN best_epoch ELSE epochs END
),
evaluated AS (
    SELECT run_id, dataset || '/' || split AS evaluated_on, track_set, 100 * avg(jf) AS jf
    FROM scores
    WHERE NOT stale
    GROUP BY ALL
)
SELECT
    recipe,
    runs.dataset || '/' || runs.split AS trained_on,
    train_videos,
    parent,
    evaluated_on,
    track_set,
    count(DISTINCT seed) AS seeds,
    round(avg(validation_jf), 2) AS validation_jf,
    round(stddev_samp(validation_jf), 2) AS validation_spread,
    round(avg(jf), 2) AS jf,
    round(stddev_samp(jf), 2) AS spread
FROM runs
LEFT JOIN validated USING (run_id)
LEFT JOIN evaluated USING (run_id)
GROUP BY ALL
ORDER BY trained_on, evaluated_on, track_set, recipe, parent
