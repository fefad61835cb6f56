package fulfillment

// product is an article of the catalogue and, for the example, its stock.
type product struct {
	Name     string
	Stock    int64
	Category string
	Location string
}

// productByID is the whole catalogue. Stock never changes: the example has no
// warehouse to take it from, so a run does not depend on the runs before it.
func productByID(id int64) (product, bool) {
	switch id {
	case 101:
		return product{Name: "Premium Widget A", Stock: 100, Category: "widgets", Location: "WH-EAST-A1"}, true
	case 102:
		return product{Name: "Deluxe Widget B", Stock: 50, Category: "widgets", Location: "WH-WEST-B2"}, true
	case 103:
		return product{Name: "Standard Gadget C", Stock: 200, Category: "gadgets", Location: "WH-CENTRAL-C3"}, true
	default:
		return product{}, false
	}
}
