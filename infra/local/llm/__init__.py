"""An OpenAI-compatible server composes activities offline from the prompt. It misbehaves when told to.

It stands in for a real endpoint in the local stack and in tests, on the wire, so that the `openai` package runs as it
does in production. Its model is called `teamfit-offline-composer`; a call costs well under a millisecond of CPU.
"""
