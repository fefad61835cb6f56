package auth

// Remembered is how many clients a limiter knows.
func Remembered(l *Limiter) int { return len(l.clients) }
