"""Whether an answer may be used without a person: scores, their calibration, the gate, the decision."""
