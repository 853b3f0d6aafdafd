"""Which images there are (`sources`), which labels are visible (`masking`) and which rows a step sees (`batches`)."""
