// Package spelling guesses which word was meant by an unknown one, for messages that ask
// "did you mean …?".
package spelling

import "strings"

// longest bounds what is compared: a longer word is not a typo.
const longest = 128

// Nearest returns the candidate most similar to word, or "" if none is similar: up to a
// third of the letters may differ, or two if that is more. Case is ignored if nothing
// else differs.
func Nearest(word string, candidates []string) string {
	if len(word) > longest {
		return ""
	}
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := len(c) - len(word); d >= bestDistance || -d >= bestDistance {
			continue
		}
		d := distance(word, c)
		if strings.EqualFold(word, c) {
			d = 0
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitution := diagonal
			if a[i] != b[j] {
				substitution++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitution, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
