"""Prints what TensorBoard's own reader finds in a directory of event files: {tag: [[step, value], ...]} as JSON."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
tags = accumulator.Tags()["scalars"]
json.dump({tag: [[event.step, event.value] for event in accumulator.Scalars(tag)] for tag in tags}, sys.stdout)
