-- One row per expression and track but its best: how like the best track's the object tokens are.
-- The best is the track of the highest mIoU; an expression without target, or whose target no track
-- touches, has none. Tokens are compared by cosine similarity, frame by frame where both masks are
-- non-empty, and averaged over those frames.

-- MATERIALIZED keeps the order of the joins, of which that of tokens is large: clips have numbers
-- in it, only tracks that are best of an expression stand on one side, and each pair is there once.
WITH clips AS MATERIALIZED (
    SELECT dataset, split, video_id, track_set, (row_number() OVER ())::INTEGER AS clip
    FROM (SELECT DISTINCT dataset, split, video_id, track_set FROM pseudo_labels WHERE NOT stale)
),
labels AS MATERIALIZED (
    SELECT clip, expression_id, track_id, miou
    FROM pseudo_labels
    JOIN clips USING (dataset, split, video_id, track_set)
    WHERE NOT stale
),
best AS MATERIALIZED (
    SELECT clip, expression_id, min_by(track_id, (-miou, track_id)) AS best_track_id
    FROM labels
    GROUP BY clip, expression_id
    HAVING max(miou) > 0
),
visible AS MATERIALIZED (
    SELECT clip, track_id, frame_index, token
    FROM tokens
    JOIN masks USING (dataset, split, video_id, track_set, track_id, frame_index)
    JOIN clips USING (dataset, split, video_id, track_set)
    WHERE area > 0 AND NOT tokens.stale
),
best_visible AS MATERIALIZED (
    SELECT clip, track_id AS best_track_id, frame_index, token
    FROM visible
    SEMI JOIN (SELECT clip, best_track_id AS track_id FROM best) USING (clip, track_id)
),
similarities AS MATERIALIZED (
    SELECT
        clip,
        own.track_id,
        best_track_id,
        avg(list_cosine_similarity(own.token, best_visible.token)) AS similarity
    FROM visible AS own
    JOIN best_visible USING (clip, frame_index)
    GROUP BY clip, own.track_id, best_track_id
)
SELECT dataset, split, video_id, track_set, track_id, best_track_id, expression_id, miou, similarity
FROM labels
JOIN best USING (clip, expression_id)
JOIN similarities USING (clip, track_id, best_track_id)
JOIN clips USING (clip)
WHERE track_id != best_track_id
