-- Pseudo-labels of each split: how many, how many positive, expressions that no track matches
WITH per_expression AS (
    SELECT
        dataset,
        split,
        video_id,
        expression_id,
        count(*) AS labels,
        count(*) FILTER (label) AS positives,
        max(miou) AS best_miou
    FROM pseudo_labels
    GROUP BY dataset, split, video_id, expression_id
),
per_split AS (
    SELECT dataset, split, count(DISTINCT (video_id, track_id)) AS tracks
    FROM pseudo_labels
    GROUP BY dataset, split
)
SELECT
    dataset,
    split,
    count(DISTINCT video_id) AS videos,
    count(*) AS expressions,
    any_value(tracks) AS tracks,
    sum(labels)::BIGINT AS labels,
    sum(positives)::BIGINT AS positives,
    sum(positives) / sum(labels) AS positive_rate,
    count(*) FILTER (positives = 0) AS expressions_without_positive,
    avg(best_miou) AS mean_best_miou
FROM per_expression
JOIN per_split USING (dataset, split)
GROUP BY dataset, split
ORDER BY dataset, split
