"""What `headrace doctor` looks at: this machine, the places data go to, Kafka and its topics, Redis."""
