-- Pseudo-labels of each split: how many, how many positive, expressions that no track matches
-- Videos without tracks count. expressions_without_positive, their share and mean_best_miou are
-- of the expressions with a target; a target without tracks has the best mIoU 0.
WITH per_video AS (
    SELECT dataset, split, track_set, video_id, max(tracks) AS tracks
    FROM expression_labels
    GROUP BY ALL
),
per_split AS (
    SELECT dataset, split, track_set, count(*) AS videos, sum(tracks)::BIGINT AS tracks
    FROM per_video
    GROUP BY ALL
)
SELECT
    dataset,
    split,
    track_set,
    any_value(per_split.videos) AS videos,
    count(*) AS expressions,
    any_value(per_split.tracks) AS tracks,
    sum(labels.tracks)::BIGINT AS labels,
    sum(positives)::BIGINT AS positives,
    sum(positives) / nullif(sum(labels.tracks), 0) AS positive_rate,
    count(*) FILTER (targets = 0) AS expressions_without_target,
    count(*) FILTER (targets > 0 AND positives = 0) AS expressions_without_positive,
    avg((positives = 0)::INTEGER) FILTER (targets > 0) AS share_without_positive,
    avg(best_miou) AS mean_best_miou
FROM expression_labels AS labels
JOIN per_split USING (dataset, split, track_set)
GROUP BY dataset, split, track_set
ORDER BY dataset, split, track_set
