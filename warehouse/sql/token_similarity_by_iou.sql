-- Cosine similarity of a track's object tokens to the best track's, by the track's mIoU (Figure 4)
SELECT
    track_set,
    least(floor(miou * 10), 9)::INTEGER / 10 AS miou_from,
    count(*) AS pairs,
    avg(similarity) AS mean_similarity,
    stddev_pop(similarity) AS std_similarity
FROM token_similarities
GROUP BY track_set, miou_from
ORDER BY track_set, miou_from
