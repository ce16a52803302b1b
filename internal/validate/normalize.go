package validate

import (
	"encoding/json"
	"math"
)

// normalizeObject copies an object the way an API server sees it: numbers without a fraction are int64,
// and fields that are null are absent. The copy shares nothing that is ever written to.
func normalizeObject(obj map[string]any) map[string]any {
	if obj == nil {
		return nil
	}
	out := make(map[string]any, len(obj))
	for key, value := range obj {
		if value != nil {
			out[key] = normalize(value)
		}
	}
	return out
}

func normalize(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return normalizeObject(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normalize(v[i])
		}
		return out
	case int:
		return int64(v)
	case int32:
		return int64(v)
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
		return float64(v)
	case float64:
		return normalizeFloat(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return normalizeFloat(f)
		}
		return v.String()
	default:
		return value
	}
}

// normalizeFloat turns a whole number that a float64 can hold exactly into an int64.
func normalizeFloat(f float64) any {
	const exact = 1 << 53
	if f == math.Trunc(f) && math.Abs(f) <= exact {
		return int64(f)
	}
	return f
}
