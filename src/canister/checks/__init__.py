"""What published guidance asks of session management, checked against an application's settings."""
