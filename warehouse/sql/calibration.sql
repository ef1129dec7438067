-- How often tracks are positive pseudo-labels, by alignment score in buckets of 0.1
-- A score is calibrated when mean_score equals positive_rate. calibration_error: the mean of their
-- distance over all pairs of expression and track of the run and split, bucket by bucket.
-- mean_probability and calibrated_error: the same of the column probability.
WITH buckets AS (
    SELECT
        run_id,
        dataset,
        split,
        track_set,
        least(floor(score * 10), 9)::INTEGER / 10 AS score_from,
        count(*) AS pairs,
        avg(score) AS mean_score,
        avg(probability) AS mean_probability,
        avg(label::INTEGER) AS positive_rate
    FROM predictions
    JOIN pseudo_labels USING (dataset, split, video_id, track_set, expression_id, track_id)
    WHERE NOT predictions.stale AND NOT pseudo_labels.stale
    GROUP BY run_id, dataset, split, track_set, score_from
)
SELECT
    *,
    sum(pairs * abs(mean_score - positive_rate)) OVER of_split / sum(pairs) OVER of_split
        AS calibration_error,
    sum(pairs * abs(mean_probability - positive_rate)) OVER of_split / sum(pairs) OVER of_split
        AS calibrated_error
FROM buckets
WINDOW of_split AS (PARTITION BY run_id, dataset, split, track_set)
ORDER BY run_id, dataset, split, track_set, score_from
