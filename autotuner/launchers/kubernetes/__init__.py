"""Servers as Jobs on a Kubernetes cluster: connection, objects, pod states, logs, and what a killed run leaves."""
