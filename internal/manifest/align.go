package manifest

import "reflect"

// align says how one list becomes another: items that are equal stay, and what stands between two that stay is changed
// item by item where there are as many as before, else it goes and comes. The functions get indices of old and new; an
// item is inserted before one of old.
func align(old, new []any, change func(i, j int) error, remove func(i int) error, insert func(before, j int) error) error {
	for len(old) > 0 && len(new) > 0 && reflect.DeepEqual(old[len(old)-1], new[len(new)-1]) {
		old, new = old[:len(old)-1], new[:len(new)-1] // so that no number of items before them matters
	}
	i, j := 0, 0
	for i < len(old) || j < len(new) {
		if i < len(old) && j < len(new) && reflect.DeepEqual(old[i], new[j]) {
			i, j = i+1, j+1
			continue
		}
		// To the next item that stays: the nearest one.
		endI, endJ := nextEqual(old, new, i, j)
		pairs := endI-i == endJ-j
		for ; i < endI; i++ {
			if pairs {
				if err := change(i, j); err != nil {
					return err
				}
				j++
			} else if err := remove(i); err != nil {
				return err
			}
		}
		for ; j < endJ; j++ {
			if err := insert(endI, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextEqual is the nearest pair of equal items from i and j on, or the ends.
func nextEqual(old, new []any, i, j int) (int, int) {
	const most = 1000 // items that are looked at: the work must not grow with the square of a long list
	for sum := 1; sum < min(len(old)-i+len(new)-j, most); sum++ {
		for di := max(0, sum-(len(new)-j-1)); di <= min(sum, len(old)-i-1); di++ {
			if reflect.DeepEqual(old[i+di], new[j+sum-di]) {
				return i + di, j + sum - di
			}
		}
	}
	return len(old), len(new)
}
