-- Prompt masks by source and fate: tracked, filtered by an earlier track, or unused
SELECT dataset, split, source, fate, count(*) AS prompts, avg(iou) AS mean_filter_iou
FROM prompts
GROUP BY dataset, split, source, fate
ORDER BY dataset, split, source, fate
