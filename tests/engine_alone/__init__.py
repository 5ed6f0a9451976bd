"""Programs that run where only the engine is installed: nothing here may import anything else."""
