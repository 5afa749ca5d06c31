"""The passport of a model: what its card notes while it is made, and the pages that tell it."""
