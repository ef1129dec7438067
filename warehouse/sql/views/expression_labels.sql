-- One row per labelled expression and track set: its tracks, how many are positive, the best mIoU.
-- best_miou is 0 where there are no tracks, null where the expression has no target.
WITH counted AS MATERIALIZED (
    SELECT
        dataset,
        split,
        video_id,
        track_set,
        expression_id,
        count(*) AS tracks,
        count(*) FILTER (label) AS positives,
        max(miou) AS best_miou
    FROM pseudo_labels
    WHERE NOT stale
    GROUP BY ALL
),
labelled AS (  -- a video without tracks has no pseudo-labels, but a record that it was labelled
    SELECT dataset, split, video_id, track_set
    FROM commits
    WHERE stage = 'label' AND status = 'done' AND NOT stale
    UNION
    SELECT dataset, split, video_id, track_set FROM counted
)
SELECT
    dataset,
    split,
    video_id,
    track_set,
    expression_id,
    text,
    len(list_distinct(object_ids)) AS targets,
    coalesce(tracks, 0) AS tracks,
    coalesce(positives, 0) AS positives,
    CASE WHEN len(object_ids) > 0 THEN coalesce(best_miou, 0) END AS best_miou
FROM labelled
JOIN expressions USING (dataset, split, video_id)
LEFT JOIN counted USING (dataset, split, video_id, track_set, expression_id)
WHERE object_ids IS NOT NULL
