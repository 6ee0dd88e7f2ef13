"""What trainers on Dassl (CoOp, CoCoOp, MaPLe, VPT, IVLP, PromptSRC, POMP) write and read: checkpoints, YAML files."""
