-- Mask tracks and positive pseudo-labels of each labelled expression, fewest positives first
-- targets: the objects that it refers to; without any it has no positive and no best mIoU.
FROM expression_labels
ORDER BY positives, dataset, split, video_id, track_set, expression_id
