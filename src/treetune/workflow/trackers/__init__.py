"""Programs that draw the numbers of many runs, one file each; what they are told: `treetune.workflow.reporting`."""
