"""Which samples run together, when, and on which replica: pure policy, without clock, await or threads of its own."""

from asyncline.engine.batching.backlog import Batcher as Batcher
