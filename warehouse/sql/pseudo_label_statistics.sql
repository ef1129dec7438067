-- Pseudo-labels of each split: how many, how many positive, expressions that no track matches
WITH per_expression AS (
    SELECT
        dataset,
        split,
        track_set,
        video_id,
        expression_id,
        count(*) AS labels,
        count(*) FILTER (label) AS positives,
        max(miou) AS best_miou
    FROM pseudo_labels
    WHERE NOT stale
    GROUP BY dataset, split, track_set, video_id, expression_id
),
per_split AS (
    SELECT dataset, split, track_set, count(DISTINCT (video_id, track_id)) AS tracks
    FROM pseudo_labels
    WHERE NOT stale
    GROUP BY dataset, split, track_set
)
SELECT
    dataset,
    split,
    track_set,
    count(DISTINCT video_id) AS videos,
    count(*) AS expressions,
    any_value(tracks) AS tracks,
    sum(labels)::BIGINT AS labels,
    sum(positives)::BIGINT AS positives,
    sum(positives) / sum(labels) AS positive_rate,
    count(*) FILTER (positives = 0) AS expressions_without_positive,
    avg(best_miou) AS mean_best_miou
FROM per_expression
JOIN per_split USING (dataset, split, track_set)
GROUP BY dataset, split, track_set
ORDER BY dataset, split, track_set
