package yaml

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// The tags of scalars.
const (
	nullTag   = "!!null"
	boolTag   = "!!bool"
	intTag    = "!!int"
	floatTag  = "!!float"
	strTag    = "!!str"
	binaryTag = "!!binary"
)

// resolve is the value of a scalar without quotes: nil, bool, int64, uint64, float64 or string. A time is text.
func resolve(tag, s string) (any, error) {
	switch tag {
	case "", nullTag, boolTag, intTag, floatTag:
	case binaryTag:
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, errors.New("what is tagged !!binary must be base64")
		}
		return string(data), nil
	default:
		return s, nil
	}
	v, is := plain(s)
	if n, ok := v.(int64); ok && tag == floatTag {
		return float64(n), nil
	}
	if tag != "" && tag != is {
		return nil, fmt.Errorf("%q cannot be read as %s", s, tag)
	}
	return v, nil
}

// plain is what a text without quotes or tag stands for, and the tag of that, as version 2 of the library has it
// (go.yaml.in/yaml/v2, resolve.go).
func plain(s string) (v any, tag string) {
	if s == "" {
		return nil, nullTag
	}
	switch c := s[0]; {
	case c == '.':
		if f, ok := special(s); ok {
			return f, floatTag
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f, floatTag
		}
	case c == '+' || c == '-' || c >= '0' && c <= '9':
		return number(s)
	default:
		switch s {
		case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
			return true, boolTag
		case "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
			return false, boolTag
		case "~", "null", "Null", "NULL":
			return nil, nullTag
		}
	}
	return s, strTag
}

// special reads the numbers that have names.
func special(s string) (float64, bool) {
	switch s {
	case ".nan", ".NaN", ".NAN":
		return math.NaN(), true
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1), true
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1), true
	}
	return 0, false
}

var decimal = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// number reads what begins as a number does.
func number(s string) (v any, tag string) {
	if f, ok := special(s); ok {
		return f, floatTag
	}
	// Most of what begins with a digit here is an address or a range: found without the errors that strconv makes.
	if strings.ContainsAny(s, "/: ") || strings.Count(s, ".") > 1 {
		return s, strTag
	}
	digits := strings.ReplaceAll(s, "_", "")
	if n, err := strconv.ParseInt(digits, 0, 64); err == nil {
		return n, intTag
	}
	if n, err := strconv.ParseUint(digits, 0, 64); err == nil {
		return n, intTag
	}
	if decimal.MatchString(digits) {
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			return f, floatTag
		}
	}
	if bits, ok := strings.CutPrefix(digits, "0b"); ok { // "0b-1" is -1
		if n, err := strconv.ParseInt(bits, 2, 64); err == nil {
			return n, intTag
		}
	}
	return s, strTag
}

// jsonValue is a scalar as its JSON would be read: what has no fraction is an int64 where it fits.
func jsonValue(v any, n *Node) (any, error) {
	switch v := v.(type) {
	case string:
		return valid(v), nil
	case uint64:
		return float64(v), nil
	case float64:
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return nil, faultf(n.Line, "%s is not a number that JSON can hold", n.Value)
		case v != math.Trunc(v) || math.Abs(v) >= 1e21:
			return v, nil
		case math.Abs(v) < 1<<53:
			return int64(v), nil
		}
		if whole, err := strconv.ParseInt(strconv.FormatFloat(v, 'f', -1, 64), 10, 64); err == nil {
			return whole, nil
		}
		return v, nil
	default:
		return v, nil
	}
}
