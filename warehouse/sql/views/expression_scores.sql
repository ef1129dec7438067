-- One row per run and scored expression: its scores, its facts, and where the rest to 1 was lost.
SELECT
    scores.*,
    facts.* EXCLUDE (dataset, split, video_id, expression_id),
    1 - oracle_jf AS lost_in_tracks,  -- no union of the tracks covers the target better
    oracle_jf - jf AS lost_in_selection
FROM scores
JOIN expression_facts AS facts USING (dataset, split, video_id, expression_id)
