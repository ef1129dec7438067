-- Mask tracks and positive pseudo-labels of each labelled expression, fewest positives first
SELECT
    dataset,
    split,
    video_id,
    track_set,
    expression_id,
    any_value(text) AS text,
    count(*) AS tracks,
    count(*) FILTER (label) AS positives,
    max(miou) AS best_miou
FROM pseudo_labels
JOIN expressions USING (dataset, split, video_id, expression_id)
WHERE NOT stale
GROUP BY dataset, split, video_id, track_set, expression_id
ORDER BY positives, dataset, split, video_id, track_set, expression_id
