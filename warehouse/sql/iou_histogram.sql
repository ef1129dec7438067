-- Pseudo-labels by mIoU, in buckets of 0.1 named by their lower edge (1.0 is in the last)
SELECT
    dataset,
    split,
    least(floor(miou * 10), 9)::INTEGER / 10 AS miou_from,
    count(*) AS labels,
    count(*) FILTER (label) AS positives
FROM pseudo_labels
GROUP BY dataset, split, miou_from
ORDER BY dataset, split, miou_from
