-- Cosine similarity of a track's object tokens to the best track's, by the track's mIoU (Figure 4)
-- Compared: every other track of an expression with the expression's best track (highest mIoU),
-- frame by frame where both masks are non-empty, averaged over those frames.
WITH ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY dataset, split, video_id, expression_id
            ORDER BY miou DESC, track_id
        ) AS place
    FROM pseudo_labels
),
pairs AS (
    SELECT
        dataset,
        split,
        video_id,
        other.track_id,
        other.miou,
        best.track_id AS best_track_id
    FROM ranked AS other
    JOIN ranked AS best USING (dataset, split, video_id, expression_id)
    WHERE best.place = 1 AND other.place > 1
),
visible AS (
    SELECT dataset, split, video_id, track_id, frame_index, token
    FROM tokens
    JOIN masks USING (dataset, split, video_id, track_id, frame_index)
    WHERE area > 0
),
similarities AS (  -- several expressions may share a pair: each pair of tracks once
    SELECT
        dataset,
        split,
        video_id,
        track_id,
        best_track_id,
        avg(list_cosine_similarity(own.token, best.token)) AS similarity
    FROM (SELECT DISTINCT dataset, split, video_id, track_id, best_track_id FROM pairs)
    JOIN visible AS own USING (dataset, split, video_id, track_id)
    JOIN (SELECT * RENAME (track_id AS best_track_id) FROM visible) AS best
        USING (dataset, split, video_id, best_track_id, frame_index)
    GROUP BY dataset, split, video_id, track_id, best_track_id
)
SELECT
    least(floor(miou * 10), 9)::INTEGER / 10 AS miou_from,
    count(*) AS pairs,
    avg(similarity) AS mean_similarity,
    stddev_pop(similarity) AS std_similarity
FROM pairs
JOIN similarities USING (dataset, split, video_id, track_id, best_track_id)
GROUP BY miou_from
ORDER BY miou_from
