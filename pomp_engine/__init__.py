"""Training, checkpoints, configuration and processes of Detectron2 models, whatever their task.

It knows neither the detector nor the segmenter: a task gives its model, its checkpointer and its loader.
"""
