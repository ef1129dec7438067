-- Prompt masks by source and fate: tracked, filtered by an earlier track, or unused
SELECT dataset, split, track_set, source, fate, count(*) AS prompts, avg(iou) AS mean_filter_iou
FROM prompts
WHERE NOT stale
GROUP BY dataset, split, track_set, source, fate
ORDER BY dataset, split, track_set, source, fate
