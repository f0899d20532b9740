"""What a backend must do: each rule a test."""
