"""The generated data set: coloured, patterned shapes for classification, detection and segmentation."""
