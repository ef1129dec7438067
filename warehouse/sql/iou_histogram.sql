-- Pseudo-labels by mIoU, in buckets of 0.1 named by their lower edge (1.0 is in the last)
-- Of expressions with a target: without one there is nothing to overlap.
SELECT
    dataset,
    split,
    track_set,
    least(floor(miou * 10), 9)::INTEGER / 10 AS miou_from,
    count(*) AS labels,
    count(*) FILTER (label) AS positives
FROM pseudo_labels
SEMI JOIN (FROM expressions WHERE len(object_ids) > 0)
    USING (dataset, split, video_id, expression_id)
WHERE NOT stale
GROUP BY dataset, split, track_set, miou_from
ORDER BY dataset, split, track_set, miou_from
