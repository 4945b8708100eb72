"""Training: the LightningModule, assembly of a run, optimization, adaptation, callbacks."""
