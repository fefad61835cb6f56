package auth

// Remembered returns how many clients a limiter remembers.
func Remembered(l *Limiter) int { return len(l.clients) }
