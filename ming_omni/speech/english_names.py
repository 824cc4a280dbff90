"""What English calls things: written form -> name, for titles, abbreviations, dates, currencies and units."""

from __future__ import annotations

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
MONTH = "|".join(MONTHS)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Jr": "Junior", "Sr": "Senior",
    "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Rev": "Reverend",
    "Hon": "Honorable", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative",
}  # fmt: skip
ABBREVIATIONS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "vs": "versus", "approx.": "about",
    "a.k.a.": "also known as", "cf.": "compare", "et al.": "and others", "w/o": "without", "w/": "with",
    "dept.": "department", "est.": "established", "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation",
    "Co.": "Company", "Ave.": "Avenue", "Blvd.": "Boulevard", "Rd.": "Road", "Apt.": "Apartment", "Mt.": "Mount",
    "Ft.": "Fort", "fig.": "figure", "Fig.": "Figure", "vol.": "volume", "Vol.": "Volume", "ch.": "chapter",
    "pp.": "pages", "p.": "page", "tel.": "telephone", "Tel.": "Telephone", "C#": "C sharp", "F#": "F sharp",
    "Eq.": "Equation", "Sec.": "Section", "km/h": "kilometers per hour", "m/s": "meters per second",
    "mph": "miles per hour",
}  # fmt: skip
SHORT_MONTHS = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
SHORT_DAYS = {d[:3]: d for d in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")}
SHORT_DAYS |= {"Tues": "Tuesday", "Thur": "Thursday", "Thurs": "Thursday"}

CURRENCIES = {
    "$": ("dollar", "cent"), "US$": ("dollar", "cent"), "C$": ("Canadian dollar", "cent"),
    "A$": ("Australian dollar", "cent"), "HK$": ("Hong Kong dollar", "cent"), "¢": ("cent", None),
    "£": ("pound", "penny"), "€": ("euro", "cent"),
    "¥": ("yen", None), "₹": ("rupee", "paisa"), "₩": ("won", None),
    "USD": ("dollar", "cent"), "GBP": ("pound", "penny"), "EUR": ("euro", "cent"), "JPY": ("yen", None),
    "CNY": ("yuan", None), "RMB": ("yuan", None),
}  # fmt: skip
SCALES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "bn": "billion", "b": "billion",
          "B": "billion", "tn": "trillion", "T": "trillion"}  # fmt: skip
PLURALS = {"penny": "pence", "paisa": "paise", "foot": "feet", "inch": "inches", "yen": "yen", "won": "won",
           "yuan": "yuan", "hertz": "hertz", "psi": "psi",
           "horsepower": "horsepower", "per mille": "per mille"}  # fmt: skip

# unit -> its name in the singular; "NAME per OTHER" takes its plural in NAME.
UNITS = {
    "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "ft": "foot", "yd": "yard", "mi": "mile",
    "mg": "milligram", "g": "gram", "kg": "kilogram", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "ml": "milliliter", "mL": "milliliter", "l": "liter", "L": "liter", "gal": "gallon",
    "ns": "nanosecond", "µs": "microsecond", "us": "microsecond", "ms": "millisecond", "s": "second", "sec": "second",
    "secs": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "yr": "year",
    "yrs": "year", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte",
    "kbps": "kilobit per second", "Mbps": "megabit per second", "Gbps": "gigabit per second",
    "mph": "mile per hour", "km/h": "kilometer per hour", "kph": "kilometer per hour", "m/s": "meter per second",
    "rpm": "revolution per minute", "fps": "frame per second", "dpi": "dot per inch",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour", "V": "volt", "mAh": "milliamp hour",
    "mA": "milliamp", "dB": "decibel", "kcal": "kilocalorie", "cal": "calorie", "px": "pixel", "psi": "psi",
    "nm": "nanometer", "um": "micrometer", "ug": "microgram", "mpg": "mile per gallon", "bpm": "beat per minute",
    "kPa": "kilopascal", "kJ": "kilojoule", "hp": "horsepower", "Ω": "ohm", "kΩ": "kiloohm",
    "cm²": "square centimeter", "m³": "cubic meter", "cm³": "cubic centimeter", "‰": "per mille",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree",
    "m²": "square meter", "km²": "square kilometer", "m2": "square meter", "sq ft": "square foot",
}  # fmt: skip

RULERS = (
    "Alexander|Benedict|Catherine|Charles|Edward|Elizabeth|Francis|Frederick|George|Gregory|Henry|Ivan|James|John|Leo|"
    "Louis|Mary|Napoleon|Nicholas|Paul|Peter|Philip|Pius|Ramses|Richard|William"
)
FILE_ENDINGS = "txt|py|js|ts|md|pdf|json|csv|html|css|exe|zip|png|jpe?g|gif|mp[34]|wav|docx?|xlsx?|pptx?|ya?ml|cpp|sh"
