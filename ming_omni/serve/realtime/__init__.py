"""GET /v1/realtime: a conversation over a WebSocket, in the events of OpenAI's Realtime API."""
