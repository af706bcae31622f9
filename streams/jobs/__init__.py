"""What all stages know about a job: its events, topics, ownership, outcomes, and the apps that read them."""
