"""What stands beside the flow: demo, samples, inspection, doctor, benchmarks, cleaning."""
