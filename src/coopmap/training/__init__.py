"""Training: the LightningModule, assembly of a run, optimization, what is trained, callbacks."""
